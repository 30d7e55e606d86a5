"""How Indonesian is written in chats and reviews: words of everyday speech, and the ways in which spelling gets short.

Packages are written in the formal language; people are not. The table gives, for a formal word, what is used in its
place; the rules shorten or stretch any word. Both are applied at random while training, so that a formal sentence
lends its context to the everyday word.
"""

from __future__ import annotations

import random
import re

WORDS: dict[str, tuple[str, ...]] = {
    formal: tuple(spoken.split())
    for formal, _, spoken in (
        line.strip().partition(": ")
        for line in """
        tidak: nggak gak ga enggak ngga gk tdk kagak ndak tak engga g
        bukan: bkn bukannya
        yang: yg
        dengan: dgn sama dg ama
        dan: dn & sama
        untuk: utk buat untk bwt
        saya: aku gue gw gua ane sy w aq ak
        anda: kamu lu lo elu kmu km loe sampeyan ente
        kamu: lu lo elu kmu km loe
        kami: kita kt
        mereka: mrk
        dia: doi dy
        itu: tuh tu
        ini: nih ni
        sangat: banget bgt sekali bingits bener amat sgt
        sekali: banget bgt skali
        sudah: udah udh dah sdh uda
        belum: blm belom blom
        akan: bakal bakalan
        hanya: cuma cuman doang
        saja: aja aj ajah doang
        juga: jg jga
        kalau: kalo klo kl klu
        jika: kalo klo
        karena: karna krn gara-gara soalnya
        tetapi: tapi tp tpi
        tapi: tp tpi
        lagi: lg lgi
        sedang: lagi lg
        seperti: kayak kaya kyk spt macam
        bagaimana: gimana gmn gmana
        mengapa: kenapa knp ngapain
        kenapa: knp napa
        apa: ap apaan
        siapa: sapa
        begitu: gitu gt gtu
        begini: gini gn
        sekarang: skrg skarang
        nanti: ntar ntr tar
        kemarin: kmrn kemaren
        dapat: bisa bs dpt
        bisa: bs bsa
        harus: hrs mesti kudu
        mau: mo pengen pengin pgn
        ingin: pengen pengin pgn mau
        memberi: kasih ngasih
        memberikan: kasih ngasih
        membuat: bikin buat ngebikin
        mengatakan: bilang ngomong
        berkata: bilang ngomong
        berbicara: ngomong ngobrol
        melihat: liat lihat ngeliat
        lihat: liat
        mencoba: nyoba coba nyobain
        membeli: beli beliin
        makan: mkn maem
        makanan: mknan
        pergi: pigi cabut
        datang: dateng dtg
        pulang: plg
        orang: org
        banyak: byk bnyk banyakan
        sedikit: dikit sdikit
        semua: smua smw
        baru: br
        benar: bener bnr
        baik: baek
        bagus: bgs oke keren kece mantap mantep top
        hebat: keren mantap jago gokil mantul
        enak: enak enk maknyus yummy
        lezat: enak maknyus nagih
        cepat: cepet cpt gercep
        lambat: lelet lemot lama
        murah: murmer mrh
        mahal: mhl
        buruk: jelek parah payah jlk
        jelek: jlk parah
        bodoh: bego goblok tolol oon
        kecewa: kuciwa nyesel zonk
        menyesal: nyesel
        menyebalkan: nyebelin ngeselin bete
        membosankan: ngebosenin bosenin
        marah: ngamuk emosi
        senang: seneng hepi
        sedih: sedih mewek galau
        menangis: nangis mewek
        lucu: kocak lucuk ngakak
        cantik: cakep kece
        tampan: ganteng cakep
        takut: tkt ngeri
        malas: males mls mager
        sakit: skit skt
        lapar: laper
        pintar: pinter
        aneh: aneh absurd
        memang: emang emg
        mungkin: mgkn kali
        pernah: prnh
        masih: msh
        sampai: sampe smpe nyampe
        bersama: bareng brg
        teman: temen tmn
        tempat: tmpt tempatnya
        terima kasih: makasih trims thx tks makasi
        tolong: tlg plis
        maaf: sori sorry maap
        jangan: jgn jangn
        jalan: jln
        rumah: rmh
        keluarga: klg
        hari: hr
        malam: mlm
        pagi: pg
        tahun: thn
        bulan: bln
        jam: jm
        dalam: dlm
        pada: pd
        dari: dr dri
        kepada: ke kpd
        oleh: sama ama
        atau: ato atw
        adalah: adlh itu
        lebih: lbh
        paling: plg
        kurang: krg
        cukup: lumayan ckp
        bahwa: kalo bhw
        sehingga: jadi jd
        jadi: jd jdi
        menjadi: jadi jd
        terlalu: kebangetan trlalu
        selalu: slalu sll
        sering: srg
        tahu: tau
        mengerti: ngerti
        paham: ngerti
        menunggu: nunggu nungguin
        mencari: nyari cari
        memakai: pake pakai make
        menggunakan: pake pakai make
        pakai: pake
        mengambil: ngambil
        membantu: bantu bantuin
        habis: abis
        hilang: ilang
        hidup: idup
        hati: ati
        keluar: kluar
        masuk: msk
        uang: duit
        bapak: bpk pak
        anak: ank bocah
        perempuan: cewek cewe
        laki-laki: cowok cowo
        ayah: papa bokap
        ibu: mama nyokap
        lain: laen
        pelayanan: layanan servis service
        """.strip().splitlines()
    )
}


def spoken(text: str, draw: random.Random, share: float) -> str:
    """``text`` with about ``share`` of the words that have an everyday form in that form, and a few spelt shorter."""
    words = re.split(r"(\W+)", text)
    for place, word in enumerate(words):
        forms = WORDS.get(word.lower())
        if forms is not None and draw.random() < share:
            words[place] = draw.choice(forms)
        elif len(word) > 4 and word.isalpha() and draw.random() < 0.06 * share:
            words[place] = respelt(word, draw)
    return "".join(words)


def respelt(word: str, draw: random.Random) -> str:
    """One of the usual ways to write ``word`` carelessly."""
    choice = draw.randrange(4)
    if choice == 0:  # vowels inside are left out: bgs, tmpt
        return word[0] + re.sub(r"[aiueo]", "", word[1:-1]) + word[-1]
    if choice == 1:  # the last letter is drawn out: bagusss
        return word + word[-1] * draw.randint(1, 3)
    if choice == 2:  # the last a is spoken as e: cepet, males
        return re.sub(r"a(?=[^aiueo]$)", "e", word)
    place = draw.randrange(1, len(word) - 1)  # two letters change places
    return word[:place] + word[place + 1] + word[place] + word[place + 2 :]
